"""What tests of several folders share: homes, cities, rows, pictures, the command line. No fixtures."""
