"""Commands about evaluations: sets that are run, runs that are compared, cases from production."""
