# kubernetes#137409: old broken pods use up maxUnavailable under Parallel
# breaks law I12
seed 1
nodes linux-1
0s add app statefulset linux=2 parallel=true
1m0s break app
2m0s mend app
3m0s peace
