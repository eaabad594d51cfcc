-- version: 1
-- error: E5055
local text = ('a'):rep(1300)
return function(frame)
  while true do text:find('a-b') end
end
