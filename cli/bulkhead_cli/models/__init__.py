"""Commands about models: which routes there are, how they compare, whether one drifts."""
