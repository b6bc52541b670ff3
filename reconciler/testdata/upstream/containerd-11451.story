# containerd#11451: an image that is on its way is pulled again
# breaks law pulls
seed 1
nodes linux-1 windows-1
0s add app2 deployment linux=2
0s peace
