-- version: 1
-- error: E5054
outputs = { said = 'string' }
return function(frame)
  local text = ('x'):rep(65536)
  return { tag = 'said', value = text .. text }
end
