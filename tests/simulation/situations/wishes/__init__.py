"""What people and programs outside want: cancels, forks, top-ups, halts, floods."""
