-- version: 1
-- error: E5054
return function(frame)
  return { value = ('x'):rep(1e9) }
end
