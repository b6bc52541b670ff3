# containerd#6693: revisions of a Windows build are compared as strings
# breaks law pulls
seed 1
nodes linux-1 windows-1
0s add app3 daemonset windows=1
0s peace
