# kubernetes#113524: the address of a Service that is gone leads on to its pods
# breaks law services
seed 1
nodes linux-1 windows-1
0s add app1 deployment service=true
2m0s drop app1
2m0s peace
