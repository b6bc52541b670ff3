# kubernetes#59848: decisions from a cache that lacks the last writes
# breaks law I4
seed 1
nodes linux-1
0s add app deployment linux=2 surge=1
1m0s bump app
2m0s peace
