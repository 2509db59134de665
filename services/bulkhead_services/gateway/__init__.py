"""The edge: takes tasks, cancels and documents from people and programs, streams what happens, answers."""
