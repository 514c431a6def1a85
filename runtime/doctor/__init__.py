"""Checks this machine against what each engine needs. Pure: a ``World`` holds its state, so a test can fake one."""
