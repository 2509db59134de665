"""Images from one build to production: tested, signed, copied by digest (docs/how-to/release-images.md)."""
