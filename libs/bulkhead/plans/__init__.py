"""Plans: checked before they run, and the gates and branches in them evaluated. Pure."""
