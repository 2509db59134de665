"""Fails on purpose: what a failed test leaves is looked at by whoever runs this file."""


def test_that_fails(a_mesh):
    task = a_mesh.submit("What does a refund of a Light ticket cost?").succeeded()
    task.answer.cites("fares.md")
