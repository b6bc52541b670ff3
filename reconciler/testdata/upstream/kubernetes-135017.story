# kubernetes#135017: a new version renders the same text to other bytes
# breaks law one meaning
seed 1
nodes linux-1 windows-1
0s add app3 daemonset
3m0s kill-controller 10.5s
4m0s peace
