# kubernetes#38418: an unhealthy successor keeps a failed predecessor from being made again
# breaks law I12
seed 1
nodes linux-1
0s add app statefulset linux=3
1m0s break app
2m0s delete-pod app 0
2m1s mend app
3m0s peace
