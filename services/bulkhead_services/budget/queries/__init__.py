"""Questions of people that budget answers: halts, uncertain writes, spending."""
