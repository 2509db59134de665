"""Decision whether a call is made: what policy says of it, and the person who is asked where policy cannot say."""
