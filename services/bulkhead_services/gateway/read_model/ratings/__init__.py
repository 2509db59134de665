"""Words of people and judges about answers: which ratings stand, the queue of labels, quality."""
