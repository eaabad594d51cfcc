-- version: 1
-- error: E5055
return function(frame)
  local text = ('1'):rep(65536)
  while #text < 2000000 do text = text .. text end
  local sum
  while true do
    sum = text + 1 sum = text + 1 sum = text + 1 sum = text + 1 sum = text + 1 sum = text + 1 sum = text + 1
  end
end
