"""Loop detectors over windows of calls."""
