"""The decider's runtime: the fold, replay and portable histories."""
