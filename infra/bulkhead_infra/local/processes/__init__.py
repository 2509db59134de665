"""Child processes of a local mesh: started, watched, restarted."""
