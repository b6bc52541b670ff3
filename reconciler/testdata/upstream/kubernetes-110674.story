# kubernetes#110674: after a reset only what changes is served again
# breaks law services
seed 12
nodes windows-1 linux-2
8m0s add app6 deployment service=true
9m50s forget-services linux-2
9m51s peace
