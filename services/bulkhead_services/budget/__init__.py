"""Money: admits every outward call, charges what it used, halts at the ceiling."""
