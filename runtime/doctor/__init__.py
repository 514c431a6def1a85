"""What this machine has of what an engine needs: pure checks over a ``World``, so that a test can fake the machine."""
