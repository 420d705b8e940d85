"""What a city of any number of cameras needs, from figures that are measured on the machine at hand.

measure    measures each stage and writes `measured.json`
figures    what is measured and what is assumed, as files have it
estimate   a value with its error, and fits that give one
needs      cores, database, network, memory and money of so many cameras
limits     what breaks first, and what one does then
tables     the tables of `docs/scale.md`, and its picture
"""
