"""What watches over the code: counts, words, and the way of one argument."""
