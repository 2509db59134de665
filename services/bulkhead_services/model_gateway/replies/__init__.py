"""Replies of a model as answers: structured ones read tolerantly, thinking left out."""
