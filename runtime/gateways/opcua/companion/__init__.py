"""OPC 40100-1 (Machine Vision) with its published types: a vision system, its events, and its alarms as conditions."""
