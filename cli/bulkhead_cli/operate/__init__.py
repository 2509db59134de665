"""Commands that run and look after a mesh: up, doctor, backup, restore, render."""
