-- Health of the kinds of calayer.dev for Argo CD, which knows no custom kind's health by itself. It says what kstatus says:
-- an object that the operator hasn't seen, or has changed since, is on its way whatever its old conditions were.
local function condition(type)
  for _, each in ipairs(obj.status.conditions or {}) do
    if each.type == type then
      return each
    end
  end
  return {}
end

if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "Being deleted: it goes when its instances are proven gone" }
end
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "The operator has not seen this generation yet" }
end

local stalled, ready, reconciling = condition("Stalled"), condition("Ready"), condition("Reconciling")
if stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
return { status = "Progressing", message = reconciling.message or ready.message or "Not ready yet" }
