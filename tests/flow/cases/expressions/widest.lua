-- fine
max(min(value,1,2,3,4,5,6,7),min(value,1,2,3,4,5,6,7),min(value,1,2,3,4,5,6,7),min(value,1,2,3,4,5,6,7),min(value,1,2,3,4,5,6,7),min(value,1,2,3,4,5,6,7),min(value,1,2,3,4,5,6,7),value)
