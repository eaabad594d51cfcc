-- version: 1
-- error: E5054
return function(frame)
  return { value = ('a'):rep(3000):find('a*a*a*a*a*b') and 1 or 0 }
end
