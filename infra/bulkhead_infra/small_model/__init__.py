"""A real, small language model on this machine: SmolLM2-135M-Instruct in llama.cpp's own server."""
