"""Plain English by rules: sentences, quantities, questions, findings."""
