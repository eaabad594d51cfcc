-- version: 1
-- error: E5054
return function(frame)
  local a = ('a'):rep(65536)
  return { value = a:find(('a'):rep(30000) .. 'b', 1, true) and 1 or 0 }
end
