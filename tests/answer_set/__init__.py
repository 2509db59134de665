"""Questions over documents as people have them, with what a right answer says; scored over a real mesh."""
