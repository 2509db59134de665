"""`bulkhead doctor --kubernetes`: reads a cluster through kubectl and says what is wrong with the mesh there.

`kubectl` runs the program, `collect` gathers what the cluster says, `judge` makes findings of it; everything between
those two is pure.
"""
