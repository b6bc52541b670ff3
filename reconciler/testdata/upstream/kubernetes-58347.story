# kubernetes#58347: two revisions of one text, and every pod is of the other one
# breaks law I4
seed 1
nodes linux-1
0s add app statefulset linux=2
1m0s peace
