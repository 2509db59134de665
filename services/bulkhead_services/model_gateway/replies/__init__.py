"""What a model wrote, as an answer: structured replies read tolerantly, thinking left out."""
