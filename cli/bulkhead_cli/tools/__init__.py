"""`bulkhead tools`: what agents may do, tried by hand, and packages of one's own."""
