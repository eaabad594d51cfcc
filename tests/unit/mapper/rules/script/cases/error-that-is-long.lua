-- version: 1
-- error: E5054
return function(frame)
  local text = ('e'):rep(65536)
  error(text .. text .. text .. text)
end
