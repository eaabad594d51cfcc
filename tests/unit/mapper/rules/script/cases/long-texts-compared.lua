-- version: 1
-- error: E5055 E5056
return function(frame)
  local a = ('x'):rep(65536)
  while #a < 4000000 do a = a .. a end
  local b, c, found = a .. 'b', a .. 'c', nil
  while true do
    found = b < c found = b < c found = b < c found = b < c found = b < c found = b < c found = b < c found = b < c
  end
end
