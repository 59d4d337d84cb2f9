"""Emotion-free language: names, times, manners, everyday actions, events, lines of speech and questions."""

from __future__ import annotations

from embedded.phrases import phrases

MALE = phrases("""Tom | Ben | Max | Leo | Sam | Jack | Oscar | Hugo | Peter | Adam | Felix | Ivan | Omar | Ravi | Noah |
    Paul | Karl | Luis | Finn | Jonas""")
FEMALE = phrases("""Anna | Lily | Mia | Rosa | Emma | Clara | Nina | Sara | Ella | Zoe | Maya | Ruth | Ines | Tara | Vera |
    Julia | Iris | Dora | Leila | Hana""")
DAYS = phrases("Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday")
MONTHS = phrases(
    "January | February | March | April | May | June | July | August | September | October | November"
)
NUMBERS = phrases("two | three | four | five | six | seven | eight | nine | ten | twelve")

TIME = phrases("""in the morning | after lunch | at noon | before dinner | on {day} | at {num} o'clock | for {num} hours |
    all day | in the evening | after work | early in the day | late at night | for a while | once a week |
    before breakfast | in {month} | at the weekend | twice that day | until noon | around midday | after school |
    for half an hour | every {day} | that afternoon | between {num} and {num2} o'clock | last {day}""")
FRONT_TIME = phrases("""in the morning | after lunch | at noon | before dinner | on {day} | at {num} o'clock | then |
    after that | later | in the evening | a little later | the next day | around midday | an hour later | first |
    that afternoon | one day in {month} | by {num} o'clock | some days later | meanwhile | at the same time""")
WHERE = phrases("""at {T.place} | near {T.place} | behind {T.place} | next to {T.obj} | in front of {T.place} | upstairs |
    in the next room | on the way to {T.place} | outside | in the hall | by the window | across from {T.place} |
    under the roof | at the corner | on the left side of {T.place}""")
MANNER = phrases("""with both hands | one after another | with {F} | for {F} | as usual | by hand | with some help |
    in the usual order | from left to right | with {a} {T.thing} | for the second time | step by step |
    together with {F} | with a pencil | in turn | for the {T.role} | according to the plan | with an old tool |
    twice | in a row | on the way | along with the {T.role} | without {T.obj} | for the group |
    with the left hand | without gloves |
    under a lamp | at the first try | with {num} others | from a short list | between two calls | by the rules |
    with plain tools | in pairs | for the record | from memory | after a short break | with {F} and the {T.role} |
    over the counter | in small steps | on a paper sheet | behind {F}""")
PURPOSE = phrases("""to help {F} | to save time | because the {T.role} had asked for it | for the next day |
    since it was {day} | to make room | because {F} needed {T.obj} | as planned | to finish the list |
    because it was on the list | so that {F} could use {T.obj} | to get ready for {day} | as the {T.role} had said |
    since {T.obj} was free | before {F} needed it | in order to check {T.obj}""")
DAILY = phrases("""made some coffee | wrote a letter to {F} | packed a bag | ate a sandwich | opened the window |
    looked at the clock | put on a coat | called {F} | moved {T.obj} | cleaned {T.obj} | borrowed {T.obj} from {F} |
    brought {T.obj} to {T.place} | left {T.obj} with {F} | put {T.obj} on the shelf | asked {F} about {T.obj} |
    talked with {F} about {T.obj} | took the stairs | drank a glass of water | turned on the radio |
    closed the gate | made a list | bought {a} {T.thing} | carried {T.obj} to {T.place} | walked to {T.place} |
    went to {T.place} | looked for {T.obj} | picked up {T.obj} | measured {T.obj} | wrapped {T.obj} in paper |
    showed {T.obj} to {F} | wrote the date on {T.obj} | returned {T.obj} to the {T.role} | had lunch with {F} |
    met the {T.role} | turned left at {T.place} | fed the cat | changed a light bulb | counted the steps |
    combed {P} hair | brushed {P} teeth | tied {P} shoes | folded the towels | took out the trash |
    read the newspaper | switched off the lamp | paid for {T.obj} | signed a form | waited for {F} |
    drew a plan of {T.place} | explained {T.obj} to {F} | gave {T.obj} to the {T.role} | set {T.obj} on the floor |
    painted {T.obj} {color} | peeled an orange | mailed a card to {F} |
    repaired the zipper | locked the drawer | watered a plant | pulled the curtain | warmed some milk |
    shared a bench with {F} | compared {T.obj} with the {T.thing} | parked near {T.place} | copied a phone number |
    sharpened a pencil | stacked some chairs | greeted the {T.role} | held {T.obj} for {F} | stored {T.obj} in a box |
    borrowed a pen from the {T.role} | turned the page | checked the label of {T.obj} | swept the floor |
    drove to {T.place} | emptied the basket | dried the cups | hung a coat on the hook | sorted some buttons |
    glued a label on {T.obj} | rinsed a bowl | typed a short note | unpacked {T.obj} | asked the {T.role} for {T.obj} |
    lent {T.obj} to {F} | filled a glass | leaned {T.obj} against the wall | chose {a} {tint} {T.thing} |
    passed {T.place} | rolled up the map | stood in line with {F} | brought {num} boxes upstairs""")
EVENTS = phrases("""a letter came for {F} | {F} knocked on the door | the phone rang | the door opened |
    {F} came by with {a} {T.thing} | the {T.role} asked for {T.obj} | a bus stopped near {T.place} |
    {F} worked as {a} {T.role} | {T.obj} was by the door | some people came and went | {F} was at {T.place} too |
    there was {a} {T.thing} on the table | the clock struck {num} | it was {day} | {F} needed {T.obj} |
    {F} put {T.obj} away | the {T.role} opened the window | it took about {num} hours | a new list hung on the wall |
    the {T.role} came back from {T.place} | {F} wrote something down | it was a day in {month} |
    {num} people stood at {T.place} | {F} had the key to {T.place} | the road led past {T.place} |
    {T.obj} cost {num} coins | the {T.role} explained {T.obj} | {F} sat near {T.place} | {F} was on the phone |
    a truck brought {num} boxes | {T.obj} stood next to the {T.thing} | {F} carried {a} {T.thing} |
    the {T.role} counted to {num} | {F} and the {T.role} talked about {T.obj} |
    {F} bought {a} {tint} {T.thing} | a van was parked at {T.place} |
    {F} lived on the second floor | the sign said {num} | the {T.role} wore a {color} coat | {F} looked for the {T.role} |
    {T.obj} lay on a {color} cloth | {F} had lunch with the {T.role} | the mail came at {num} o'clock |
    the {T.role} swept the floor | {F} left {T.place} {time} | {num} chairs stood in a row | {F} checked the list |
    {F} opened a window at {T.place} | the {T.role} wrote a number on the wall | the next bus left at {num} o'clock |
    {T.obj} was {color} | the {T.role} showed {T.obj} to {F} | {F} ordered {num} more | a clerk stamped the paper |
    {F} had borrowed {T.obj} | the radio was on | {F} parked behind {T.place} | a table was free near {T.place} |
    the {T.role} handed {T.obj} to {F} | {F} was {num} minutes late | the shop at the corner was open""")
LINES = phrases("""Where did you put {T.obj}? | We need {num} more. | I will be at {T.place} on {day}. |
    Can you hand me {T.obj}? | The {T.role} will come at {num}. | It is over there. | Is this your {T.thing}? |
    I think it is {day}. | Let me check the list. | {T.obj} goes to {T.place}. | You can use {T.obj}. |
    How many are left? | This one is new. | {F} has {T.obj}. | The door is open. | That was the last one. |
    Which {T.thing} do you mean? | I saw {F} at {T.place}. | It starts at {num}. | We meet at {T.place}. |
    Please sign here. | The {T.thing} is from {T.place}. | I have {num} of them. | Ask the {T.role}.""")
SAY = phrases("said | asked | replied | explained | answered | added | told {F}")
TINT = phrases("old | new | small | large | wooden | plain | second | heavy | round | long | other | usual")
PRES = phrases("""I live near {T.place} | I work with {F} | my {T.thing} is {tint} | I have {num} of them |
    I go to {T.place} every {day} | I keep {T.obj} near the door | I start at {num} o'clock | it is {day} |
    I am at {T.place} now | the {T.thing} is from {T.place} | I use {T.obj} {time} | we need {a} {T.thing} |
    I am waiting for {F} | I know the {T.role} at {T.place} | there are {num} people at {T.place} |
    I have {a} {tint} {T.thing} | I plan to go to {T.place} on {day} | I eat at noon | I am reading about {T.obj} |
    it takes {num} minutes to {T.place} | {F} works at {T.place} | the {T.role} has {T.obj} today""")

OPEN_THIRD = phrases("""once there was {a} {T.role} named {N} | {N} was {a} {T.role} | {N} lived near {T.place} |
    {N} worked at {T.place} with {F} | one day {N} went to {T.place} | there was once {a} young {T.role} called {N} |
    {N} and {F} met at {T.place} | {N} had {a} {tint} {T.thing} | it was {day}, and {N} was at {T.place} |
    in {month}, {N} came to {T.place} | {N}, {a} {T.role}, shared a house with {F} | {N} was {num} years older than {F} |
    every {day}, {N} went to {T.place} | {N} had worked as {a} {T.role} for {num} years""")
OPEN_FIRST = phrases("""i was {a} {T.role} at {T.place} | last week I went to {T.place} | i was once {a} {T.role} |
    i still remember that day at {T.place} | it happened at {T.place} | in {month} I came to {T.place} |
    i had {a} {tint} {T.thing} | on {day} I was at {T.place} with {F} | i worked as {a} {T.role} for {num} years |
    {F} and I met at {T.place}""")

# Questions of the user.  Those with slots are split by hash into training and evaluation wordings (world.py).
ASK_FIXED = phrases("""How was your day? | How are you? | What did you do today? | What is on your mind? | Hello! |
    Describe your morning. | Say something about yourself. | Hello, what is new? | Tell me more. | What happened? |
    How do you feel? | Good morning. | And then? | Tell me something. | How is life? | Hi, how is it going?""")
ASK = phrases("""Tell me about {T.place}. | What happened at {T.place}? | Tell me about {T.obj}. |
    What do you think about {T.obj}? | Did you see {F} at {T.place}? | What is it like to be {a} {T.role}? |
    Why did you go to {T.place}? | What did {F} say about {T.obj}? | How was your {day} at {T.place}? |
    What did you do at {T.place} with {F}? | Did {F} give you {T.obj}? | Is {T.place} far from here? |
    What do you remember about {T.place}? | Describe {T.place} to me. | How was it with {F}? |
    Do you still have {T.obj}? | How did it go with {T.obj}? | What is new at {T.place}? | Where is {F} now? |
    How do you spend your time at {T.place}? | Say something about {T.obj}. | Did the {T.role} talk to you? |
    What was {F} doing with {T.obj}? | How is work at {T.place}? | What will you do on {day}? |
    How was your walk to {T.place}? | What comes to mind when you see {T.obj}? |
    What happened when you {daily}? | What happened after you {T.vp}? |
    How was it when you {T.vp} with {F}? | I heard that {event}. What do you say? | Where were you when {event}? |
    Who was there when you {daily}? | Tell me how you {T.vp} {time}. | What came next, after you {daily}? |
    I hear that you {T.vp} {where}. How was it? | You {daily} {time}, right? | I {daily} {time}. And you? |
    What did {F} do when you {T.vp}? | Is it true that {event}? | Yesterday I {T.vp}. What about you?""")
STORY_ASK = phrases("""Tell me a story. | Write a short story. | Tell me a story about {a} {T.role}. |
    Write a story set at {T.place}. | I would like to hear a story. | Tell me a tale about {N} and {F}. |
    Write about {a} {T.role} and {a} {T.thing}. | Make up a story with {a} {T.thing} in it. |
    What could happen at {T.place}? Tell a story. | Give me a short tale about {N}.""")
PERSONA = phrases("""You are {a} {T.role}. | You are a helpful assistant. | You work at {T.place}. |
    You are {a} {T.role} who lives near {T.place}. | You feel as usual. | You are {num} years older than {F}. |
    You are {a} {T.role} and you work with {F}. | You own {a} {tint} {T.thing}. | You answer questions.""")
COLORS = phrases("red | blue | green | white | black | yellow | brown | grey | orange | pink")
