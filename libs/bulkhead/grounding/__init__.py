"""Grounding: which source says each sentence of an answer, found by plain rules. Pure; linear in the text's length.

In: a text, the sources that it may rest on, the question. Out: the sentences, each with its markers and its flaws. A
citation is found, not demanded: a right sentence without a marker gets one.
"""
