"""Child processes on this machine: started, watched, restarted."""
