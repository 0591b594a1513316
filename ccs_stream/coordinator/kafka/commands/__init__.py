"""Commands of this process: sent into the commands topic, and remembered until the log shows their decisions."""
