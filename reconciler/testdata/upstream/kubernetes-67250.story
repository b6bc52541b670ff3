# kubernetes#67250: a revision that never becomes ready is never replaced
# breaks law I12
seed 1
nodes linux-1
0s add app statefulset linux=2
1m0s break app
2m0s mend app
3m0s peace
