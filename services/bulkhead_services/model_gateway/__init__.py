"""The model gateway: the only holder of provider keys; one model call in, one reply out."""
